"""Griffe: show `aadd = cancellable_twin(add)` as an asynchronous method with the arguments of `add`."""

from __future__ import annotations

from typing import Any

import griffe

from colpali_integrations.runtime.twins import DOCS


class ShowTwins(griffe.Extension):
    """Put functions in the place of such attributes."""

    def on_class_members(self, *, cls: griffe.Class, **kwargs: Any) -> None:
        """Look at the members of a class that was read."""
        for name, member in list(cls.members.items()):
            call = member.value if isinstance(member, griffe.Attribute) else None
            if not isinstance(call, griffe.ExprCall) or str(call.function) not in DOCS:
                continue
            method = cls.members[str(call.arguments[0])]
            assert isinstance(method, griffe.Function)
            twin = griffe.Function(
                name,
                parameters=method.parameters,
                returns=method.returns,
                lineno=member.lineno,
                endlineno=member.endlineno,
                docstring=griffe.Docstring(DOCS[str(call.function)].format(method.name)),
                parent=cls,
            )
            twin.labels.add("async")
            cls.set_member(name, twin)
