"""Straight to Honeycomb: one key, one call, and the questions to ask there.

HONEYCOMB_API_KEY=... python examples/honeycomb.py

Without a key nothing is sent; the run is on disk, and `burr-otel replay` sends it later.
"""

import os

from burr.core import ApplicationBuilder, State, action

import burr_otel

# The EU has a team endpoint of its own: https://api.eu1.honeycomb.io:443
ENDPOINT = os.environ.get("HONEYCOMB_ENDPOINT", "https://api.honeycomb.io:443")
DATASET = "burr-otel-example"  # Honeycomb keeps the traces of a service in a dataset of its name


@action(reads=[], writes=["order"])
def receive(state: State, order: int) -> State:
    return state.update(order=order)


@action(reads=["order"], writes=["price"])
def price(state: State) -> State:
    return state.update(price=12.5 * state["order"])


def set_up(key: str | None) -> dict:
    """Make the provider that sends there; without a key, one that sends nowhere."""
    if key:
        headers = {"x-honeycomb-team": key}
        return {"tracer_provider": burr_otel.configure(DATASET, ENDPOINT, headers=headers)}
    print("HONEYCOMB_API_KEY is not set: nothing is sent.")
    os.environ["OTEL_TRACES_EXPORTER"] = "none"
    return {}


def main() -> None:
    # Prices are ours to know: spans carry the names and types of the state, not its values.
    settings = set_up(os.environ.get("HONEYCOMB_API_KEY"))
    with burr_otel.OtelTracker(DATASET, capture_state="types", **settings) as tracker:
        for order in (1, 2, 3):
            app = (
                ApplicationBuilder()
                .with_actions(receive, price)
                .with_transitions(("receive", "price"))
                .with_entrypoint("receive")
                .with_tracker(tracker)
                .build()
            )
            app.run(halt_after=["price"], inputs={"order": order})
    print(f"Here:         burr-otel list --project {DATASET}")
    print(f"In Honeycomb: dataset {DATASET}. Ask, for example:")
    print("  which step is slow?     VISUALIZE P95(duration_ms)  GROUP BY burr.action.name")
    print("  which runs failed, why? WHERE burr.outcome = error  GROUP BY burr.app_id, error.type")


if __name__ == "__main__":
    main()
