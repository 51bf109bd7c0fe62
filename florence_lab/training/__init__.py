"""Training: florence-2-nano from nothing (`pretrain`), and fine-tuning."""
