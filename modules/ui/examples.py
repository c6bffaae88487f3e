"""Prompts that the starter checkpoint draws well: one click away on the first visit."""

EXAMPLES = ("a red apple on the grass", "a fox in the snow", "a sailboat on the sea")
