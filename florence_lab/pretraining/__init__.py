"""Pretraining of florence-2-nano from scratch on cartoon scenes. `loop.pretrain` runs it; README.md describes the recipe."""
