"""The look of the page: neutral greys, one accent (viridian), an 8 px grid, the system's own fonts.

All colours live here; the stylesheets use the variables that Gradio makes of them.
"""

from gradio.themes import Base
from gradio.themes.utils import colors, sizes

_VIRIDIAN = colors.Color(
    "#eff7f4", "#d8ebe5", "#b3d7cc", "#86bdad", "#5aa18d", "#3f8672", "#2f6f5e", "#275a4d", "#21493f", "#1b3c34", "#0e231e", "viridian"
)
_GREY = colors.Color(
    "#f8f8f9", "#eeeef0", "#dedee2", "#c6c6cc", "#9a9aa3", "#71717b", "#55555e", "#3d3d44", "#29292e", "#1d1d20", "#141416", "grey"
)
_SANS = ("ui-sans-serif", "system-ui", "-apple-system", "Segoe UI", "Roboto", "Helvetica Neue", "Noto Sans", "Arial", "sans-serif")
_MONO = ("ui-monospace", "SFMono-Regular", "Menlo", "Consolas", "Liberation Mono", "monospace")

_COLOURS = {  # variable: (light, dark)
    "body_background_fill": ("*neutral_100", "*neutral_950"),
    "body_text_color": ("*neutral_900", "#e4e4e8"),
    "body_text_color_subdued": ("*neutral_600", "#a3a3ad"),
    "background_fill_primary": ("*neutral_50", "*neutral_900"),
    "background_fill_secondary": ("*neutral_200", "#0d0d0e"),
    "block_background_fill": ("transparent", "transparent"),
    "block_border_color": ("transparent", "transparent"),
    "border_color_primary": ("*neutral_300", "*neutral_700"),
    "border_color_accent": ("*primary_600", "*primary_400"),
    "color_accent_soft": ("*primary_100", "*primary_900"),
    "block_title_text_color": ("*neutral_700", "#c9c9d1"),
    "block_label_text_color": ("*neutral_700", "#c9c9d1"),
    "block_info_text_color": ("*neutral_600", "#a3a3ad"),
    "panel_background_fill": ("*neutral_50", "*neutral_900"),
    "panel_border_color": ("*neutral_300", "*neutral_800"),
    "input_background_fill": ("#fdfdfd", "*neutral_800"),
    "input_background_fill_focus": ("#ffffff", "*neutral_800"),
    "input_border_color": ("*neutral_400", "#5b5b65"),
    "input_border_color_focus": ("*primary_600", "*primary_400"),
    "input_placeholder_color": ("*neutral_500", "#8d8d98"),
    "slider_color": ("*primary_600", "*primary_400"),
    "loader_color": ("*primary_600", "*primary_400"),
    "link_text_color": ("*primary_700", "*primary_300"),
    "button_primary_background_fill": ("*primary_600", "*primary_600"),
    "button_primary_background_fill_hover": ("*primary_700", "*primary_700"),
    "button_primary_border_color": ("*primary_600", "*primary_600"),
    "button_primary_text_color": ("#ffffff", "#ffffff"),
    "button_secondary_background_fill": ("*neutral_200", "*neutral_800"),
    "button_secondary_background_fill_hover": ("*neutral_300", "*neutral_700"),
    "button_secondary_border_color": ("*neutral_300", "*neutral_700"),
    "button_secondary_text_color": ("*neutral_900", "#e4e4e8"),
    "error_background_fill": ("#fbeaea", "#3a1d1f"),
    "error_border_color": ("#b3261e", "#e5766f"),
    "error_text_color": ("#8c1d18", "#f2b8b5"),
    "error_icon_color": ("#b3261e", "#e5766f"),
    "accordion_text_color": ("*neutral_700", "#c9c9d1"),
}


def theme() -> Base:
    """The theme, light and dark."""
    base = Base(
        primary_hue=_VIRIDIAN,
        secondary_hue=_VIRIDIAN,
        neutral_hue=_GREY,
        text_size=sizes.text_md,
        spacing_size=sizes.spacing_md,
        radius_size=sizes.radius_md,
        font=_SANS,
        font_mono=_MONO,
    )
    light = {name: pair[0] for name, pair in _COLOURS.items()}
    dark = {f"{name}_dark": pair[1] for name, pair in _COLOURS.items()}
    return base.set(
        **light,
        **dark,
        block_padding="0px",
        block_border_width="0px",
        block_shadow="none",
        block_title_text_size="13px",
        block_title_text_weight="500",
        block_info_text_size="12px",
        form_gap_width="0px",
        layout_gap="16px",
        input_border_width="1px",
        input_padding="8px 12px",
        input_radius="6px",
        input_shadow="none",
        input_shadow_focus="none",
        input_text_size="14px",
        button_border_width="1px",
        button_large_radius="6px",
        button_medium_radius="6px",
        button_small_radius="6px",
        button_primary_shadow="none",
        button_secondary_shadow="none",
    )
