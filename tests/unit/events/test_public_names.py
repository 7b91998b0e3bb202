import app.events


def test_every_public_name_is_there_once() -> None:
    assert all(hasattr(app.events, name) for name in app.events.__all__)
    assert len(app.events.__all__) == len(set(app.events.__all__))
