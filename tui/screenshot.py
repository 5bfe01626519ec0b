"""A dashboard as a picture, without a terminal."""

from __future__ import annotations

from dreamer_async.tui.app import Dashboard
from dreamer_async.tui.draw.text import clean


async def screenshot(app: Dashboard, size: tuple[int, int] = (120, 40)) -> str:
    """Draw a dashboard without a terminal and return it as an SVG."""
    async with app.run_test(size=size) as pilot:
        while app.is_running and not (app.main.ready and all(s.caught_up for s in app.sources)):
            await pilot.pause(0.05)
        app.check_trainer()
        app.check_trainer()
        while app.main.turning:
            await pilot.pause()
        app.show_now()
        await pilot.pause()
        name = clean(app.source.run_dir.name, 80)
        return app.export_screenshot(title=f"dreamer-async watch {name}")
