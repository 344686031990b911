"""Every span, attribute, event, link and metric name that burr-otel writes.

Sources:
    * ``burr.*``: this package, described in docs/spans.md.
    * ``gen_ai.*``: OpenTelemetry semantic conventions for generative AI. The constants in
      ``opentelemetry-semantic-conventions`` are deprecated there, so the strings stand here.
    * ``code.*``, ``error.*``, ``exception.*``, ``session.*``: OpenTelemetry semantic conventions.
    * ``openinference.*``, ``graph.*``, ``input.*``, ``output.*``: Arize OpenInference conventions.
"""

from __future__ import annotations

from typing import Final

SCHEMA_URL: Final = "https://opentelemetry.io/schemas/1.37.0"
SCOPE_NAME: Final = "burr_otel"

# --- identity ---------------------------------------------------------------------------------
PROJECT: Final = "burr.project"
APP_ID: Final = "burr.app_id"
PARTITION_KEY: Final = "burr.partition_key"
SEQUENCE_ID: Final = "burr.sequence_id"
SESSION_ID: Final = "session.id"
USER_ID: Final = "user.id"
GEN_AI_AGENT_NAME: Final = "gen_ai.agent.name"
GEN_AI_CONVERSATION_ID: Final = "gen_ai.conversation.id"

# --- application span -------------------------------------------------------------------------
ROOT_NAME_PREFIX: Final = "invoke_workflow"
GRAPH: Final = "burr.graph"
OUTCOME: Final = "burr.outcome"
STEPS: Final = "burr.steps"
STEPS_FAILED: Final = "burr.steps.failed"
STATE_INITIAL: Final = "burr.state.initial"
GEN_AI_OPERATION_NAME: Final = "gen_ai.operation.name"
INVOKE_WORKFLOW: Final = "invoke_workflow"

# --- step -------------------------------------------------------------------------------------
ACTION_NAME: Final = "burr.action.name"
INPUTS: Final = "burr.inputs"
RESULT: Final = "burr.result"
STATE_WRITTEN: Final = "burr.state.written"
STATE_READ: Final = "burr.state.read"
EXECUTE_METHOD: Final = "burr.execute.method"
CODE_FUNCTION_NAME: Final = "code.function.name"
GEN_AI_TOOL_NAME: Final = "gen_ai.tool.name"
GEN_AI_TOOL_ARGUMENTS: Final = "gen_ai.tool.call.arguments"
GEN_AI_TOOL_RESULT: Final = "gen_ai.tool.call.result"
GEN_AI_INPUT_MESSAGES: Final = "gen_ai.input.messages"
GEN_AI_OUTPUT_MESSAGES: Final = "gen_ai.output.messages"
KIND_TAG_PREFIX: Final = "otel.kind:"  # an action's tag that says what it is
STREAM_ITEMS: Final = "burr.stream.items"
STREAM_TIME_TO_FIRST_ITEM: Final = "burr.stream.time_to_first_item"  # seconds
STREAM_GENERATOR_TIME: Final = "burr.stream.generator_time"  # seconds, without the consumer's

# --- any span ---------------------------------------------------------------------------------
TRUNCATED: Final = "burr.truncated"
CHECK: Final = "burr.check"  # a test trace of `burr-otel check`
SNAPSHOT_ERROR: Final = "burr.snapshot.error"
USAGE_INPUT_TOKENS: Final = "burr.usage.input_tokens"
USAGE_OUTPUT_TOKENS: Final = "burr.usage.output_tokens"
USAGE_CALLS: Final = "burr.usage.calls"
ERROR_TYPE: Final = "error.type"

# --- OpenInference ----------------------------------------------------------------------------
OPENINFERENCE_PROJECT_NAME: Final = "openinference.project.name"  # of the resource
OPENINFERENCE_SPAN_KIND: Final = "openinference.span.kind"
GRAPH_NODE_ID: Final = "graph.node.id"
GRAPH_NODE_PARENT_ID: Final = "graph.node.parent_id"
INPUT_VALUE: Final = "input.value"
INPUT_MIME_TYPE: Final = "input.mime_type"
OUTPUT_VALUE: Final = "output.value"
OUTPUT_MIME_TYPE: Final = "output.mime_type"
MIME_JSON: Final = "application/json"

# --- events -----------------------------------------------------------------------------------
EVENT_EXCEPTION: Final = "exception"
EXCEPTION_TYPE: Final = "exception.type"
EXCEPTION_MESSAGE: Final = "exception.message"
EXCEPTION_STACKTRACE: Final = "exception.stacktrace"
EVENT_STREAM_FIRST_ITEM: Final = "burr.stream.first_item"
EVENT_STREAM_END: Final = "burr.stream.end"

EVENT_LOG: Final = "log"
LOG_SEVERITY: Final = "log.severity"
LOG_LOGGER: Final = "log.logger"
LOG_MESSAGE: Final = "log.message"

# --- links ------------------------------------------------------------------------------------
LINK_TYPE: Final = "burr.link.type"
LINK_FORK: Final = "fork"
LINK_RESUME: Final = "resume"
LINK_AMBIENT: Final = "ambient"
LINK_APPLICATION: Final = "application"
LINK_STEP: Final = "step"
LINK_DEPENDENCY: Final = "dependency"

# --- outcomes ---------------------------------------------------------------------------------
OK: Final = "ok"
ERROR: Final = "error"
FAILED: Final = "failed"  # by `mark_failed` or the setting `failed`, without an exception
CANCELLED: Final = "cancelled"
ABANDONED: Final = "abandoned"
CRASHED: Final = "crashed"

# --- metrics ----------------------------------------------------------------------------------
METRIC_STEP_DURATION: Final = "burr.step.duration"
METRIC_STEP_ACTIVE: Final = "burr.step.active"
METRIC_STREAM_TIME_TO_FIRST_ITEM: Final = "burr.stream.time_to_first_item"
METRIC_SNAPSHOT_BYTES: Final = "burr.snapshot.bytes"
METRIC_STEP_ENDED: Final = "burr.step.ended"
METRIC_USAGE_TOKENS: Final = "burr.usage.tokens"
METRIC_INVOKE_AGENT_DURATION: Final = "gen_ai.invoke_agent.duration"
GEN_AI_TOKEN_TYPE: Final = "gen_ai.token.type"  # noqa: S105  # "input" or "output"
