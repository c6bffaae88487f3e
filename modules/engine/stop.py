"""Ways in which drawing ends early."""


class Cancelled(Exception):
    """The person pressed Interrupt: nothing more is drawn, finished pictures stay."""


class Skipped(Exception):
    """The person pressed Skip: the batch being drawn is given up, the next one begins."""


class CannotDraw(RuntimeError):
    """This recipe cannot be drawn. The message is one line for the person who asked: what happened and what to do."""
