select
    usage_date,
    currency,
    sum(cost) as cost,
    sum(credits) as credits,
    sum(net_cost) as net_cost,
    max(export_time) as as_of,
    {{ common_coverage('coverage') }} as coverage
from {{ ref('stg_billing__costs') }}
group by usage_date, currency
