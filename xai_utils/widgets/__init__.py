"""Controls over captured passes: capture once, redraw many. The only room that knows ipywidgets."""

from xai_utils.widgets import attention, closed_form, explorer, foreground, gender, language, layers, scans
