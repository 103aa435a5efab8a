{# The columns together identify a row: returns the combinations that occur more than once. #}
{% test unique_combination(model, combination) %}
select
    {{ combination | join(', ') }},
    count(*) as occurrences
from {{ model }}
group by {{ combination | join(', ') }}
having count(*) > 1
{% endtest %}
