"""`python -m deploy`: write the generated files."""

from deploy.files import generated

for path, text in generated().items():
    path.write_text(text, encoding="utf-8")
