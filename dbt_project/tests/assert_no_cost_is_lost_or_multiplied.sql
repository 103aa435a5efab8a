-- What the marts say was spent is what the billing lines say, per day and currency.
with lines as (

    select
        usage_date as date,
        currency,
        sum(cost + credits) as amount
    from {{ ref('stg_billing__costs') }}
    group by usage_date, currency

),

metrics as (

    select
        date,
        currency,
        sum(total_cost) as amount
    from {{ ref('fct_daily_lz_metrics') }}
    where total_cost is not null
    group by date, currency

),

costs as (

    select
        date,
        currency,
        sum(net_cost) as amount
    from {{ ref('fct_daily_costs') }}
    group by date, currency

)

select
    lines.date as line_date,
    metrics.date as metric_date,
    costs.date as cost_date,
    lines.amount as line_amount,
    metrics.amount as metric_amount,
    costs.amount as cost_amount
from lines
full outer join metrics
    on lines.date = metrics.date and lines.currency = metrics.currency
full outer join costs
    on lines.date = costs.date and lines.currency = costs.currency
where
    metrics.amount is null
    or costs.amount is null
    or lines.amount is null
    or lines.amount <> metrics.amount
    or lines.amount <> costs.amount
