"""The smallest server that offers the tool: what a Python host of `docker run` would be."""

import subprocess

from mcp.server.fastmcp import FastMCP

server = FastMCP("sandbox")


@server.tool()
def run_in_sandbox(task: str, workspace: str = ".", timeout: int = 300) -> str:
    """Runs a coding task in a fresh container and returns the agent's output."""
    command = ["docker", "run", "--rm", "-i", "-v", f"{workspace}:/workspace", "sandbox"]
    done = subprocess.run(command, input=task, capture_output=True, text=True, timeout=timeout)
    return done.stdout


server.run()
