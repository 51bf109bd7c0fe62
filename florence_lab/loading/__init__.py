"""Loading checkpoints: names, hubs and caches, the published layout, adapters."""
