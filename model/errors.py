"""The one exception that is meant for the person at the keyboard."""


class UserError(Exception):
    """One sentence a user can act on: the file, what was found, what was expected."""
