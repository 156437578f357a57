"""The exception whose message is meant for the user."""


class UserError(Exception):
    """One sentence a user can act on: the file, what was found, what was expected."""
