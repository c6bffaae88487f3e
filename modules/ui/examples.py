"""Prompts that the starter checkpoint draws well: one click away on the first visit."""

EXAMPLES = ("a fox in the snow", "a red apple on the grass", "a rocket in the night sky")
