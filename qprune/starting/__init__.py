"""The first hour: specs for data that somebody has, and whether this machine has what training needs."""

from qprune.starting.doctor import Finding, examine
from qprune.starting.looking import Looked, look
from qprune.starting.new import Written, write_specs
from qprune.starting.recipe import Recipe
