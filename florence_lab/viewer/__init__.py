"""Results in the browser: an image with everything that was found on it, as one interactive widget."""
