// What a board may hold: Grafana's own types, put together for the generator. Options are partial: Grafana fills in its
// defaults where a board says nothing.
import type { Dashboard } from "./node_modules/@grafana/schema/dist/esm/raw/dashboard/x/dashboard_types.gen";
import type * as barchart from "./node_modules/@grafana/schema/dist/esm/raw/composable/barchart/panelcfg/x/BarChartPanelCfg_types.gen";
import type * as bargauge from "./node_modules/@grafana/schema/dist/esm/raw/composable/bargauge/panelcfg/x/BarGaugePanelCfg_types.gen";
import type * as gauge from "./node_modules/@grafana/schema/dist/esm/raw/composable/gauge/panelcfg/x/GaugePanelCfg_types.gen";
import type * as geomap from "./node_modules/@grafana/schema/dist/esm/raw/composable/geomap/panelcfg/x/GeomapPanelCfg_types.gen";
import type * as histogram from "./node_modules/@grafana/schema/dist/esm/raw/composable/histogram/panelcfg/x/HistogramPanelCfg_types.gen";
import type * as stat from "./node_modules/@grafana/schema/dist/esm/raw/composable/stat/panelcfg/x/StatPanelCfg_types.gen";
import type * as statetimeline from "./node_modules/@grafana/schema/dist/esm/raw/composable/statetimeline/panelcfg/x/StateTimelinePanelCfg_types.gen";
import type * as table from "./node_modules/@grafana/schema/dist/esm/raw/composable/table/panelcfg/x/TablePanelCfg_types.gen";
import type * as timeseries from "./node_modules/@grafana/schema/dist/esm/raw/composable/timeseries/panelcfg/x/TimeSeriesPanelCfg_types.gen";

export interface Board {
  dashboard: Dashboard;
  options: {
    barchart: Partial<barchart.Options>;
    bargauge: Partial<bargauge.Options>;
    gauge: Partial<gauge.Options>;
    geomap: Partial<geomap.Options>;
    histogram: Partial<histogram.Options>;
    stat: Partial<stat.Options>;
    "state-timeline": Partial<statetimeline.Options>;
    table: Partial<table.Options>;
    timeseries: Partial<timeseries.Options>;
  };
  custom: {
    barchart: Partial<barchart.FieldConfig>;
    histogram: Partial<histogram.FieldConfig>;
    "state-timeline": Partial<statetimeline.FieldConfig>;
    table: Partial<table.FieldConfig>;
    timeseries: Partial<timeseries.FieldConfig>;
  };
}
