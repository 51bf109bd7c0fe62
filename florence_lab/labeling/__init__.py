"""Labelling folders of images: from images and class names to a dataset in a common format."""
