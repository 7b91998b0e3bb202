"""What can go wrong with topics; the tree is in the package's docstring."""


class TopicError(Exception):
    """Something about topics that the caller cannot go on from."""


class BrokerUnreachableError(TopicError):
    """No broker answered within the time limit."""


class BrokerRefusesError(TopicError):
    """A broker refuses the login, the certificate or a right; the text says which setting or right it is about."""


class TopicCreationError(TopicError):
    """The broker refused to create at least one topic."""
