select
    usage_date as date,
    cast({{ landing_zone() }} as string) as source,
    cast(coalesce(project_id, 'none') as string) as project_id,
    cast(coalesce(service, 'none') as string) as service,
    currency,
    cast(sum(cost) as {{ type_exact() }}) as cost,
    cast(sum(credits) as {{ type_exact() }}) as credits,
    cast(sum(net_cost) as {{ type_exact() }}) as net_cost,
    cast({{ common_coverage('coverage') }} as string) as coverage,
    max(export_time) as as_of
from {{ ref('stg_billing__costs') }}
group by
    usage_date,
    coalesce(project_id, 'none'),
    coalesce(service, 'none'),
    currency
