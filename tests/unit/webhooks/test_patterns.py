from __future__ import annotations

import pytest

from app.events import KNOWN_TYPES, OperatorEventType, VaultEventType
from app.webhooks.errors import InvalidPattern
from app.webhooks.patterns import canonical_pattern, canonical_patterns, patterns_matching

CREATED = "llm.data-vault.dataset.created"


class TestCanonicalForm:
    @pytest.mark.parametrize(
        ("written", "stored"),
        [
            (CREATED, CREATED),
            ("dataset.created", CREATED),
            ("dataset.*", "dataset.*"),
            ("llm.data-vault.dataset.*", "dataset.*"),
            ("*", "*"),
            ("webhook.failing", "llm.data-vault.webhook.failing"),
            ("webhook.*", "webhook.*"),
            ("stream.gap", "llm.data-vault.stream.gap"),
            ("stream.*", "stream.*"),
        ],
    )
    def test_every_form_is_stored_as_one(self, written: str, stored: str) -> None:
        assert canonical_pattern(written) == stored
        assert canonical_pattern(stored) == stored

    @pytest.mark.parametrize("type_", list(VaultEventType))
    def test_each_of_the_22_types_has_a_short_and_a_full_form(self, type_: str) -> None:
        assert canonical_pattern(type_.removeprefix("llm.data-vault.")) == canonical_pattern(type_) == type_

    @pytest.mark.parametrize(
        "written",
        ["", "dataset", "dataset.", "dataset.c*", "*.created", "**", "Dataset.created", "dataset.renamed", "nothing.*",
         " dataset.*", "llm.data-vault.*", "llm.data-vault.llm.data-vault.dataset.created"],
    )  # fmt: skip
    def test_a_pattern_that_no_event_matches_is_refused(self, written: str) -> None:
        with pytest.raises(InvalidPattern, match="unknown event type"):
            canonical_pattern(written)

    @pytest.mark.parametrize("written", ["webhook.ping", "webhook.created", "operator.replayed", "audit.recorded"])
    def test_a_type_that_is_delivered_to_no_pattern_is_refused(self, written: str) -> None:
        with pytest.raises(InvalidPattern, match="not delivered"):
            canonical_pattern(written)

    def test_a_list_keeps_its_order_and_each_pattern_once(self) -> None:
        assert canonical_patterns(["version.*", "dataset.created", CREATED]) == ("version.*", CREATED)

    def test_a_bad_pattern_in_a_list_is_named_by_its_place(self) -> None:
        with pytest.raises(InvalidPattern) as refused:
            canonical_patterns(["*", "nothing.*"])

        assert refused.value.field == "/events/1"

    @pytest.mark.parametrize("count", [0, 51])
    def test_there_are_1_to_50(self, count: int) -> None:
        with pytest.raises(InvalidPattern, match="1 to 50") as refused:
            canonical_patterns(["*"] * count)

        assert refused.value.field == "/events"


class TestWhatAnEventAnswersTo:
    def test_an_event_of_the_vault_answers_to_its_type_its_family_and_the_star(self) -> None:
        assert patterns_matching(CREATED) == (CREATED, "dataset.*", "*")

    @pytest.mark.parametrize(
        ("type_", "patterns"),
        [
            ("llm.data-vault.webhook.failing", ("llm.data-vault.webhook.failing", "webhook.*")),
            ("llm.data-vault.webhook.recovered", ("llm.data-vault.webhook.recovered", "webhook.*")),
            ("llm.data-vault.webhook.disabled", ("llm.data-vault.webhook.disabled", "webhook.*")),
            ("llm.data-vault.stream.gap", ("llm.data-vault.stream.gap", "stream.*")),
        ],
    )
    def test_what_the_system_says_of_itself_never_answers_to_the_star(
        self, type_: str, patterns: tuple[str, ...]
    ) -> None:
        assert patterns_matching(type_) == patterns

    @pytest.mark.parametrize(
        "type_",
        [
            *sorted(KNOWN_TYPES - set(VaultEventType) - set(OperatorEventType)),
            "llm.data-vault.webhook.ping",
            "llm.data-vault.dataset.renamed",
            "dataset.created",
            "",
        ],
    )
    def test_pings_admin_actions_audit_and_unknown_types_answer_to_nothing(self, type_: str) -> None:
        assert patterns_matching(type_) == ()
