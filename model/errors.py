"""The exception whose message is meant for the user."""


class UserError(Exception):
    """One sentence a user can act on: the file, what was found, what was expected."""


class SelectionError(UserError):
    """What was asked for cannot be done with a file; nothing is wrong with the file, nor with former predictions."""
