"""`PageAgent`: LlamaIndex's `FunctionAgent` for LLMs that take only text from tools."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial

from llama_index.core.agent.workflow import AgentContext, AgentOutput, FunctionAgent, ToolCallResult
from llama_index.core.llms import ChatMessage
from llama_index.core.memory import BaseMemory
from llama_index.core.tools import AsyncBaseTool
from llama_index.core.workflow import Context

from colpali_integrations.llama_index.tools import PageSearchTool
from colpali_integrations.runtime.threads import offload

__all__ = ["PageAgent"]


class PageAgent(FunctionAgent):
    """A `FunctionAgent` that shows the pages of its tools in messages of the user.

    It does so for each `PageSearchTool` with `images="user"`. The pictures stand behind the answers of all tools that
    the LLM called together. Everything else is `FunctionAgent`'s own.

    Example:
        >>> from llama_index.core.llms.mock import MockFunctionCallingLLM
        >>> from colpali_integrations.llama_index import PageSearchTool
        >>> tool = PageSearchTool("my-index", images="user")
        >>> agent = PageAgent(tools=[tool], llm=MockFunctionCallingLLM())  # replace it by a model that reads images
        >>> agent.tools == [tool]
        True
    """

    async def handle_tool_call_results(self, ctx: Context, results: list[ToolCallResult], memory: BaseMemory) -> None:
        """Put the answers of the tools before the LLM, and behind them the pictures."""
        await super().handle_tool_call_results(ctx, results, memory)
        if any(result.return_direct for result in results):
            return  # the answer of the tool ends the run
        outputs, shown = [result.tool_output for result in results], []
        for name in dict.fromkeys(result.tool_name for result in results):
            for tool in await self.get_tools(name):
                if isinstance(tool, PageSearchTool) and tool.metadata.name == name and tool.shows_pictures_later:
                    message = await offload(partial(tool.picture_message, outputs), "pages")
                    shown += [message] if message is not None else []
        if shown:
            scratchpad: list[ChatMessage] = await ctx.store.get(self.scratchpad_key, default=[])
            await ctx.store.set(self.scratchpad_key, [*scratchpad, *shown])

    async def take_step(
        self, ctx: AgentContext, llm_input: list[ChatMessage], tools: Sequence[AsyncBaseTool], memory: BaseMemory
    ) -> AgentOutput:
        """Ask the LLM; `initial_tool_choice` holds for the first step only."""
        agent = self
        # `FunctionAgent` takes a message of the user at the end for the first step.
        if self.initial_tool_choice is not None and await ctx.store.get(self.scratchpad_key, default=[]):
            agent = self.model_copy(update={"initial_tool_choice": None})
        return await FunctionAgent.take_step(agent, ctx, llm_input, tools, memory)
