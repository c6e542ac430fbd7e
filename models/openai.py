"""OpenAI's chat completions, as far as reading needs them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from models.http_json import JsonCaller, Refused


class Chat:
    """One question, one answer, of one model. Raises Unavailable and Refused."""

    def __init__(self, key: str, *, base: str, model: str) -> None:
        self._key, self._url, self._model = key, f"{base.rstrip('/')}/v1/chat/completions", model
        self._http = JsonCaller("OpenAI")

    async def answer(
        self, parts: Sequence[Mapping[str, Any]], *, system: str | None = None, schema: Mapping[str, Any] | None = None
    ) -> str:
        """What the model says to the parts (text, pictures); with a JSON schema, JSON of its form."""
        messages: list[Any] = [] if system is None else [{"role": "system", "content": system}]
        messages.append({"role": "user", "content": list(parts)})
        body: dict[str, Any] = {"model": self._model, "messages": messages}
        if schema is not None:
            form = {"name": "answer", "strict": True, "schema": schema}
            body["response_format"] = {"type": "json_schema", "json_schema": form}
        return _text_of(await self._http.post(self._url, body, token=self._key))

    async def close(self) -> None:
        await self._http.close()


def _text_of(completion: Any) -> str:
    """The text of a completion; Refused for a refusal, and for what is cut off."""
    try:
        choice = completion["choices"][0]
        text, ending = choice["message"]["content"], choice.get("finish_reason")
    except (KeyError, IndexError, TypeError, AttributeError):
        raise Refused("OpenAI answers in another form") from None
    if not isinstance(text, str) or ending not in (None, "stop"):
        raise Refused(f"OpenAI gives no whole answer: {ending}")
    return text
