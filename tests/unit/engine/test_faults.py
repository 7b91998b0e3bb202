import pytest

from app.engine import faults


@pytest.fixture(autouse=True)
def disarmed():  # noqa: ANN201
    yield
    faults.arm(None)


def test_a_fault_acts_at_its_nth_pass_and_only_once() -> None:
    faults.arm(faults.parse("checkpoint:sent:2:raise"))

    faults.point("checkpoint:sent")
    faults.point("checkpoint:begun")
    with pytest.raises(faults.FaultInjected, match="checkpoint:sent"):
        faults.point("checkpoint:sent")
    faults.point("checkpoint:sent")


@pytest.mark.parametrize("name", faults.POINTS)
def test_every_point_can_be_named(name: str) -> None:
    assert faults.parse(name) == faults.Fault(name, 1, "kill")
    assert faults.parse(f"{name}:3:stop") == faults.Fault(name, 3, "stop")


@pytest.mark.parametrize("text", ["", "checkpoint", "checkpoint:sent:0", "checkpoint:sent:explode"])
def test_a_fault_that_is_none_is_refused_by_name(text: str) -> None:
    with pytest.raises(ValueError, match=r"fault"):
        faults.parse(text)
