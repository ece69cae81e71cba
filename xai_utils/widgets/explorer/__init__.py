"""The explorer of notebook 10: choose model, input, class and methods; see their maps side by side."""

from xai_utils.widgets.explorer import app, decided, files, linked, view
from xai_utils.widgets.explorer.app import explore
from xai_utils.widgets.explorer.files import captured
from xai_utils.widgets.explorer.view import Request, requested
