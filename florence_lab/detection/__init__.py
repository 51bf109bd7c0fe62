"""Detection of named classes, and the evidence for each box."""
