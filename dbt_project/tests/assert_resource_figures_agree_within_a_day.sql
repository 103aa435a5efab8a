-- The rows of one day differ in cost and currency, never in what they say of the resources.
select
    date,
    source
from {{ ref('fct_daily_lz_metrics') }}
group by date, source
having
    count(distinct coalesce(total_resources, -1)) > 1
    or count(distinct coalesce(resources_with_violations, -1)) > 1
    or count(distinct coalesce(avg_compliance, -1)) > 1
