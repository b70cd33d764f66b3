"""Scenes with profanity, in a terminal of its own (tmux)."""

import asyncio
import os
import signal
import tempfile

from house import PASSWORD
from scenes import eventually, scene

PEER = "profanity"


class Terminal:
    """profanity in tmux: types lines, reads the screen."""

    def __init__(self):
        self.home = tempfile.TemporaryDirectory(prefix="waft-profanity-")
        self.socket = os.path.join(self.home.name, "tmux")

    async def tmux(self, *arguments):
        process = await asyncio.create_subprocess_exec(
            "tmux", "-S", self.socket, *arguments, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.STDOUT
        )
        output, _ = await process.communicate()
        return output.decode(errors="replace")

    async def __aenter__(self):
        home = self.home.name
        environment = f"env HOME={home} XDG_CONFIG_HOME={home}/config XDG_DATA_HOME={home}/data LANG=C.UTF-8 TERM=screen"
        await self.tmux("-f", "/dev/null", "new-session", "-d", "-x", "200", "-y", "50", f"{environment} profanity")
        await self.shows("Profanity")
        return self

    async def __aexit__(self, *_):
        await self.tmux("send-keys", "-l", "/quit")
        await self.tmux("send-keys", "Enter")
        await asyncio.sleep(0.3)
        await self.tmux("kill-server")

    async def types(self, line):
        await self.tmux("send-keys", "-l", line)
        await self.tmux("send-keys", "Enter")

    async def screen(self):
        return await self.tmux("capture-pane", "-p")

    async def shows(self, *texts, seconds=30):
        """Waits until one of the texts stands on the screen; gives the screen."""
        last = ""

        async def look():
            nonlocal last
            last = await self.screen()
            return any(text in last for text in texts) and last

        try:
            return await eventually(" or ".join(texts), look, seconds)
        except AssertionError as error:
            raise AssertionError(f"{error}; the screen:\n{last}") from None

    async def login(self, house, jid):
        """STARTTLS; the certificate signs itself, so profanity asks, and is told to trust it."""
        await self.types(f"/connect {jid} server 127.0.0.1 port {house.starttls_port} tls force")
        screen = await self.shows("password", "/tls allow", "logged in")
        if "logged in" not in screen and "/tls allow" not in screen:
            await self.types(PASSWORD)
            screen = await self.shows("/tls allow", "logged in")
        if "logged in" not in screen:
            await self.types("/tls allow")
        await self.shows("logged in")


@scene(PEER, seconds=90)
async def it_logs_in_and_chats_with_waft_client_both_ways(house):
    romeo, juliet = house.account("romeo"), house.account("juliet")
    async with Terminal() as terminal:
        await terminal.login(house, romeo)
        await house.waft_client(juliet, "send", romeo, "Wherefore art thou?")
        await terminal.shows("Wherefore art thou?", "unread", "<< chat message")
        watch = await house.start_waft_client(juliet, "watch", "--count", "1", "--seconds", "20")
        await eventually("juliet's stream", lambda: watch.returncode is None)
        await eventually("juliet online", lambda: juliet in str(house.command({"do": "sessions"})))
        await terminal.types(f"/msg {juliet} By a name I know not.")
        output, errors = await asyncio.wait_for(watch.communicate(), 30)
        assert "By a name I know not." in output.decode(), (output, errors, await terminal.screen())
        assert "Wherefore art thou?" in await terminal.shows("Wherefore art thou?")


@scene(PEER, seconds=120)
async def with_archive_and_stream_management_it_sees_what_was_said_before_and_its_session_waits(house):
    romeo, juliet = house.account("romeo"), house.account("juliet")
    await house.waft_client(juliet, "send", romeo, "Said long ago.")
    # Another device has taken it, so that only the archive has it.
    taken = await house.start_waft_client(romeo, "watch", "--count", "1", "--seconds", "20")
    output, errors = await asyncio.wait_for(taken.communicate(), 30)
    assert "Said long ago." in output.decode(), errors
    async with Terminal() as terminal:
        await terminal.types("/mam on")
        await terminal.login(house, romeo)
        # (A window that is opened before profanity has heard of the archive does not ask it.)
        for seconds in (5, 10, 30):
            await terminal.types(f"/msg {juliet}")
            try:
                await terminal.shows("Said long ago.", seconds=seconds)
                break
            except AssertionError:
                if seconds == 30:
                    raise
                await terminal.types("/close")
        pane = (await terminal.tmux("list-panes", "-F", "#{pane_pid}")).strip()
        os.kill(int(pane), signal.SIGKILL)
        waits = lambda: [s for s in house.command({"do": "sessions"})["sessions"] if s["jid"].startswith(romeo)]
        await eventually("a session that waits for its client", lambda: [s for s in waits() if s["state"] == "suspended"])


@scene(PEER, seconds=90)
async def a_wrong_password_is_told(house):
    romeo = house.account("romeo")
    house.command({"do": "user-passwd", "jid": romeo, "password": "another one"})
    async with Terminal() as terminal:
        await terminal.types(f"/connect {romeo} server 127.0.0.1 port {house.starttls_port} tls force")
        screen = await terminal.shows("password", "/tls allow")
        if "/tls allow" not in screen:
            await terminal.types(PASSWORD)
            await terminal.shows("/tls allow")
        await terminal.types("/tls allow")
        await terminal.shows("Login failed", "failed")
