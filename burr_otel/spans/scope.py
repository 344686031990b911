"""One span's place in the current context: attach and detach, each exactly once.

OpenTelemetry's `detach` logs an error when its token was made in another `contextvars.Context`,
and Python has no public way to ask which context is running. The one test that there is, whether
a token can be reset, is made on a variable of our own *before* OpenTelemetry's is touched.
"""

from __future__ import annotations

from contextvars import ContextVar, Token

from opentelemetry import context as otel_context
from opentelemetry import trace
from opentelemetry.context import Context

__all__ = ["BurrStep", "SpanScope", "innermost_scope"]

BurrStep = tuple[str, int]
"""App id and sequence id of a step."""

Suspended = tuple["SpanScope | None", Context]

_innermost: ContextVar[SpanScope | None] = ContextVar("burr_otel_scope", default=None)


def innermost_scope() -> SpanScope | None:
    """The scope attached last in the running context, or in the one that it was copied from."""
    return _innermost.get()


class SpanScope:
    """A span that can be made current, and the context in which it is.

    Attributes:
        span: The span.
        context: The OpenTelemetry context in which `span` is current.
        parent: The Burr scope that encloses this one, for inner spans.
        step: Which step it is the scope of, for a step's own.

    Args:
        outer: What is current here, if the caller knows.
    """

    __slots__ = ("_attached", "_outer", "context", "parent", "span", "step")

    def __init__(
        self,
        span: trace.Span,
        parent: SpanScope | None = None,
        step: BurrStep | None = None,
        outer: Context | None = None,
    ) -> None:
        self.span = span
        self.parent = parent
        self.step = step
        self._outer = outer = otel_context.get_current() if outer is None else outer
        *_, valid = span.get_span_context()
        self.context: Context = trace.set_span_in_context(span, outer) if valid else outer
        self._attached: tuple[Token[SpanScope | None], Token[Context]] | None = None

    def encloses(self, other: SpanScope | None) -> bool:
        """Whether `other` is this scope or inside it."""
        while other is not None:
            if other is self:
                return True
            other = other.parent
        return False

    def outermost(self) -> SpanScope:
        """The scope of the step that this one is in."""
        return self if self.parent is None else self.parent.outermost()

    def attach(self, inside: Suspended | None = None) -> None:
        """Make the span current until `detach`.

        Args:
            inside: What was current inside this span when a generator was suspended, if it is
                resumed now.
        """
        innermost, context = inside or (self, self.context)
        self._attached = (_innermost.set(innermost), otel_context.attach(context))

    @staticmethod
    def suspended() -> Suspended:
        """What is current now, for `attach` when the generator goes on."""
        return _innermost.get(), otel_context.get_current()

    def detach(self) -> None:
        """Make current what was current before `attach`, wherever that can be done; idempotent."""
        if self._attached is None:
            return
        (own, theirs), self._attached = self._attached, None
        try:
            _innermost.reset(own)
        except ValueError:
            # Another contextvars.Context: that of a consumer, a finaliser or a copied task. What
            # it holds of ours came by copying; cover it, so that no ended span stays current.
            if otel_context.get_current() is self.context:
                otel_context.attach(self._outer)
                _innermost.set(self.parent)
            return
        otel_context.detach(theirs)
