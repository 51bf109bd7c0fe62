"""Running a model: encoding images and prompts, generation, streaming, compilation, devices."""
