"""Zero-shot classification: the prompts of a class."""

PROMPTS = ("{}", "the sound of {}", "this is a sound of {}")  # {} is the class name
