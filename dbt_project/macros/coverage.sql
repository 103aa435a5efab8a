{# One word for a group of coverage words: what they all say, or `partial` if they differ. #}
{% macro common_coverage(column) -%}
case when min({{ column }}) = max({{ column }}) then min({{ column }}) else 'partial' end
{%- endmacro %}
