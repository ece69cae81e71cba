"""The one look of every figure: colours, letters and lines; importing this module sets matplotlib's defaults.

Nothing is written in less than :data:`SMALLEST` points. Colours are told apart by colour-blind readers: ``viridis`` for
amounts, ``PuOr`` around zero for signed scores, and eight for lines.
"""

from cycler import cycler
from matplotlib import pyplot as plt
from matplotlib.figure import Figure
from matplotlib.text import Text

AMOUNT = "viridis"
SIGNED = "PuOr_r"
BLUE, ORANGE = "#2a4b8d", "#b2560c"
#: eight that colour-blind readers tell apart (Okabe and Ito, black and brown for yellow)
COLOURS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#000000", "#8c6d31")
SMALLEST = 8  #: points

plt.rcParams.update(
    {
        "font.size": 9,
        "axes.titlesize": 9,
        "axes.labelsize": SMALLEST,
        "xtick.labelsize": SMALLEST,
        "ytick.labelsize": SMALLEST,
        "legend.fontsize": SMALLEST,
        "legend.frameon": False,
        "figure.titlesize": 10,
        "figure.labelsize": 9,
        "axes.prop_cycle": cycler(color=COLOURS),
        "image.cmap": AMOUNT,
    }
)


def small(fig: Figure) -> list[str]:
    """Return what a figure writes in less than :data:`SMALLEST` points; an empty list is what one wants."""
    fig.draw_without_rendering()  # ticks are written when they are drawn
    written = [text for text in fig.findobj(Text) if text.get_text().strip() and text.get_visible()]  # type: ignore[attr-defined]
    return [text.get_text() for text in written if float(text.get_fontsize()) < SMALLEST]
