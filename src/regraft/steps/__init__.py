"""The seven steps: decisions and order. A step is a function (inputs, its recipe, context) -> artefact."""
