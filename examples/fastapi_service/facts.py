"""A second service, without Burr: looks facts up for the first one.

uvicorn --factory facts:main --port 8001
"""

import logging

from fastapi import FastAPI, HTTPException
from service import instrumented, start

logger = logging.getLogger("facts")

FACTS = {
    "burr": "A burr is a seed that holds on to whoever passes.",
    "jaeger": "Jaeger is the German word for hunter.",
    "otel": "The gathering of telemetry is older than its name.",
}


def create_app(tracer_provider=None) -> FastAPI:
    app = FastAPI()

    @app.get("/facts/{topic}")
    async def fact(topic: str) -> dict[str, str]:
        logger.info("asked for %s", topic)
        if topic not in FACTS:
            raise HTTPException(404, f"nothing is known of {topic}")
        return {"fact": FACTS[topic]}

    return instrumented(app, tracer_provider)


def main() -> FastAPI:
    start("facts")
    return create_app()
