"""A run that fails goes on where it failed, and a fork asks what else could have been.

python examples/resume_and_fork.py
"""

import contextlib
import logging
import uuid

from burr.core import ApplicationBuilder, State, action

from burr_otel import OtelTracker


@action(reads=[], writes=["city"])
def choose_city(state: State, city: str) -> State:
    return state.update(city=city)


@action(reads=["city"], writes=["forecast"])
def look_up(state: State, weather) -> State:
    return state.update(forecast=weather(state["city"]))


@action(reads=["city", "forecast"], writes=["advice"])
def advise(state: State, mood: str = "careful") -> State:
    take = "an umbrella" if mood == "careful" else "nothing"
    return state.update(advice=f"{state['city']}: {state['forecast']}. Take {take}.")


def broken(_city):
    raise ConnectionError("the weather service does not answer")


def working(_city):
    return "rain later"


def build(tracker: OtelTracker, app_id: str, **fork):
    """The application as its tracker knows it: a new one, or where it stopped, or a fork."""
    return (
        ApplicationBuilder()
        .with_actions(choose_city, look_up, advise)
        .with_transitions(("choose_city", "look_up"), ("look_up", "advise"))
        .with_identifiers(app_id=app_id)
        .with_tracker(tracker)
        .initialize_from(
            tracker,
            resume_at_next_action=True,
            default_state={},
            default_entrypoint="choose_city",
            **fork,
        )
        .build()
    )


def main() -> None:
    logging.getLogger("burr").setLevel(logging.CRITICAL)  # it would print the failure's traceback
    trip = f"trip-{uuid.uuid4().hex[:6]}"
    with OtelTracker(project="resume-and-fork") as tracker:
        # The second step fails: its span says why, and its state is not the run's.
        with contextlib.suppress(ConnectionError):
            build(tracker, trip).run(
                halt_after=["advise"], inputs={"city": "Bergen", "weather": broken}
            )

        # Later, maybe in another process: the same id goes on at the step that failed.
        resumed = build(tracker, trip)
        print("goes on at:", resumed.get_next_action().name)
        _, _, state = resumed.run(halt_after=["advise"], inputs={"weather": working})
        print(state["advice"])

        # A fork begins with the state after step 1, and leaves the original as it is.
        other = build(
            tracker,
            f"{trip}-bold",
            fork_from_app_id=trip,
            fork_from_sequence_id=resumed.sequence_id - 1,
        )
        _, _, state = other.run(halt_after=["advise"], inputs={"mood": "bold"})
        print(state["advice"])

    print(f"Here:      burr-otel show {trip} && burr-otel diff {trip} {trip}-bold")
    print("In Jaeger: http://localhost:16686/search?service=resume-and-fork")


if __name__ == "__main__":
    main()
