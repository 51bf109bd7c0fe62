"""Fine-tuning with LoRA or of all weights."""
