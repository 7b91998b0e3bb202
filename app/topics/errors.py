"""What can go wrong with topics; the tree is in the package's docstring."""


class TopicError(Exception):
    """Something about topics that the caller cannot go on from."""


class BrokerUnreachableError(TopicError):
    """No broker answered within the time limit."""


class TopicCreationError(TopicError):
    """The broker refused to create at least one topic."""
