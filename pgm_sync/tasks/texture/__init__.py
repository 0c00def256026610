"""Textures for meshes from the denoiser of their views: geometry, the atlas as hidden canvas, renders and files."""

from .atlas import Atlas, dilate, fitting_size, make_atlas
from .bilinear import bake, bilinear_texture_graph
from .cameras import Camera, close_cameras, ring_cameras, sphere_cameras
from .export import load_textured, save_textured
from .graph import texture_graph
from .mesh import Surface, Texels, load_surface
from .projection import project_views
from .render import depth_image, look_up, render, save_turntable, turntable
from .solids import joint_samples, solid_colours, view_pictures, view_samples
from .views import View, cast, cast_all

__all__ = [
    "Atlas",
    "Camera",
    "Surface",
    "Texels",
    "View",
    "bake",
    "bilinear_texture_graph",
    "cast",
    "cast_all",
    "close_cameras",
    "depth_image",
    "dilate",
    "fitting_size",
    "joint_samples",
    "load_surface",
    "load_textured",
    "look_up",
    "make_atlas",
    "project_views",
    "render",
    "ring_cameras",
    "save_textured",
    "save_turntable",
    "solid_colours",
    "sphere_cameras",
    "texture_graph",
    "turntable",
    "view_pictures",
    "view_samples",
]
