"""The reference client of the protocol, on the server whose command line the arguments are.

For both ways to begin a session, it lists the tools, calls both, and prints what it got as a line of JSON; and a line
for whatever it is told meanwhile.
"""

import asyncio
import json
import os
import sys

from mcp import StdioServerParameters
from mcp.client.client import Client


async def session(server, mode, template):
    async def progress(count, _total, message):
        print(json.dumps({"told": [count, message]}), flush=True)

    async with Client(server, mode=mode) as client:
        tools = (await client.list_tools()).tools
        bad = await client.call_tool("create_workspace", {"template_id": "none"})
        # The client checks what is structured against the published schema.
        created = await client.call_tool("create_workspace", {"template_id": template}, progress_callback=progress)
        started = await client.call_tool("start_workspace")
        try:
            await client.call_tool("delete_workspace")
            unknown = None
        except Exception as error:
            unknown = str(error)
        return {
            "version": client.protocol_version,
            "tools": [[tool.name, tool.title, tool.output_schema is not None] for tool in tools],
            "bad": [bad.is_error, bad.content[0].text],
            "created": [created.is_error, created.structured_content, created.content[0].text],
            "started": [started.is_error, started.structured_content],
            "unknown": unknown,
        }


async def main():
    template, command, *arguments = sys.argv[1:]
    server = StdioServerParameters(command=command, args=arguments, env=dict(os.environ))
    for mode in ["legacy", "auto"]:
        print(json.dumps(await session(server, mode, template)), flush=True)


asyncio.run(main())
