"""A step that fans out to Ray workers: one trace, whichever process a branch ran in.

pip install "burr-otel[ray]"
python examples/parallel_ray.py
"""

import os

import ray
from burr.core import ApplicationBuilder, ApplicationContext, State, action
from burr.core.parallelism import MapStates
from burr.integrations.ray import RayExecutor

from burr_otel import OtelTracker


@action(reads=["text"], writes=["length"])
def measure(state: State) -> State:
    print(f"measuring in process {os.getpid()}")
    return state.update(length=len(state["text"]))


class MeasureAll(MapStates):
    """Each text is an application of its own, below this step in the trace."""

    def action(self, state: State, inputs: dict):
        return measure

    def states(self, state: State, context: ApplicationContext, inputs: dict):
        for text in state["texts"]:
            yield state.update(text=text)

    def reduce(self, state: State, states):
        return state.update(lengths=[each["length"] for each in states])

    @property
    def reads(self) -> list[str]:
        return ["texts"]

    @property
    def writes(self) -> list[str]:
        return ["lengths"]


def main() -> None:
    ray.init(num_cpus=2, include_dashboard=False)
    try:
        with OtelTracker(project="parallel-ray") as tracker:
            app = (
                ApplicationBuilder()
                .with_actions(measure_all=MeasureAll())
                .with_state(texts=["a", "burr", "holds on to whoever passes"])
                .with_entrypoint("measure_all")
                .with_parallel_executor(RayExecutor)
                .with_tracker(tracker)
                .build()
            )
            _, _, state = app.run(halt_after=["measure_all"])
    finally:
        ray.shutdown()
    print("lengths:", *state["lengths"])
    print(f"Here:      burr-otel show {app.uid}")
    print("In Jaeger: http://localhost:16686/search?service=parallel-ray")


if __name__ == "__main__":
    main()
