"""What the settings of a deployment ask of the broker."""

from app.settings import Settings
from app.topics import Topics, TopicSpec, plan

__all__ = ["plan_of"]


def plan_of(settings: Settings) -> tuple[TopicSpec, ...]:
    """The plan that the settings ask for."""
    return plan(
        Topics(settings.topic_prefix, settings.app_id),
        partitions=settings.partitions,
        replication=settings.replication,
        audit_retention_d=settings.governance.retention_d,
        policy_ttl_s=max(settings.policy.cache_ttl_s, settings.policy.deny_ttl_s),
    )
