"""The benchmark: speed and memory against plain transformers and the hardware's roofline."""
