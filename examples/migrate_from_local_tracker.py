"""From Burr's LocalTrackingClient to OtelTracker: the same files, so nothing is left behind.

python examples/migrate_from_local_tracker.py
"""

import uuid

from burr.core import ApplicationBuilder, State, action
from burr.tracking import LocalTrackingClient

from burr_otel import OtelTracker


@action(reads=["items"], writes=["items"])
def add(state: State, item: str) -> State:
    return state.append(items=item)


def build(tracker, app_id: str):
    """The same code for both trackers."""
    return (
        ApplicationBuilder()
        .with_actions(add)
        .with_transitions(("add", "add"))
        .with_identifiers(app_id=app_id)
        .with_tracker(tracker)
        .initialize_from(
            tracker,
            resume_at_next_action=True,
            default_state={"items": []},
            default_entrypoint="add",
        )
        .build()
    )


def main() -> None:
    basket = f"basket-{uuid.uuid4().hex[:6]}"

    # Until yesterday: files, no traces.
    before = LocalTrackingClient(project="migration")
    build(before, basket).run(halt_after=["add"], inputs={"item": "bread"})

    # From today: one line differs. The run goes on, and is traced.
    with OtelTracker(project="migration") as tracker:
        _, _, state = build(tracker, basket).run(halt_after=["add"], inputs={"item": "milk"})
    print("in the basket:", *state["items"])

    # And back, should you want to: the old client and the Burr UI read what we wrote.
    read_back = before.load(None, basket)
    print("LocalTrackingClient reads:", *read_back["state"]["items"])

    print(f"Here:      burr-otel show {basket}")
    print("In Jaeger: http://localhost:16686/search?service=migration")
    print("What ran before today becomes traces too: burr-otel replay --project migration")


if __name__ == "__main__":
    main()
