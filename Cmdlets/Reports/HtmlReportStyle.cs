namespace FCtrans.Commands;

/// <summary>How the report looks: in light and dark, on a narrow screen, and on paper.</summary>
internal static class HtmlReportStyle
{
    public const string Css = """
        :root{color-scheme:light dark;--ink:#1b1f24;--soft:#5c6773;--paper:#fff;--line:#d7dce1;--tile:#f4f6f8;--main:#2563a8;--sub0:#d97b1f;--sub1:#7a5cc4;
        --sub2:#2b8a6b;--sub3:#b8527f;--free:#9cc3e6;--never:#dde2e7;--lost:#c02626;--dirty:#d97b1f}
        @media screen and (prefers-color-scheme:dark){:root{--ink:#e6e9ec;--soft:#9aa5b1;--paper:#15191e;--line:#343c45;--tile:#1f252c;--main:#5b9bd9;--sub0:#e59a4c;
        --sub1:#a48ee0;--sub2:#56b594;--sub3:#d981a8;--free:#3c5f80;--never:#39424c;--lost:#ef6a6a;--dirty:#e59a4c}}
        *{box-sizing:border-box}body{margin:0;background:var(--paper);color:var(--ink);font:16px/1.5 system-ui,sans-serif}
        main{max-width:820px;margin:0 auto;padding:24px 16px}h1{font-size:1.6rem;margin:0 0 4px}h2{font-size:1.15rem;margin:32px 0 8px}h3{font-size:1rem;margin:16px 0 4px}
        p{margin:4px 0 12px}.sub,footer{color:var(--soft)}.sub b{color:var(--ink)}footer{margin-top:32px;font-size:.85rem}
        .state{padding:1px 8px;border-radius:4px;background:var(--tile);border:1px solid var(--line);color:var(--ink)}
        .state.Completed{background:#1e7a46;border-color:#1e7a46;color:#fff}.state.Failed,.state.Aborted{background:#b32424;border-color:#b32424;color:#fff}
        .error{border-left:4px solid var(--lost);padding:4px 12px;background:var(--tile);overflow-wrap:anywhere}
        .tiles{display:grid;grid-template-columns:repeat(auto-fit,minmax(130px,1fr));gap:8px}
        .tiles div{background:var(--tile);border-radius:6px;padding:10px 12px}.tiles strong{display:block;font-size:1.25rem;font-variant-numeric:tabular-nums}.tiles span{color:var(--soft);font-size:.85rem}
        svg{width:100%;height:auto;display:block}svg text{fill:var(--soft);font-size:12px}svg .end{text-anchor:end}.axis{stroke:var(--line)}
        .key{font-size:.9rem;color:var(--soft)}.key span{margin-right:12px;white-space:nowrap}.key b{color:var(--ink);font-weight:600}.key i{display:inline-block;width:.8em;height:.8em;border-radius:2px}
        rect.main,rect.sent{fill:var(--main)}rect.dirty{fill:var(--dirty)}rect.sub0{fill:var(--sub0)}rect.sub1{fill:var(--sub1)}rect.sub2{fill:var(--sub2)}rect.sub3{fill:var(--sub3)}
        rect.free{fill:var(--free)}rect.never{fill:var(--never)}rect.lost{fill:var(--lost)}i.main,i.sent{background:var(--main)}i.dirty{background:var(--dirty)}i.sub0{background:var(--sub0)}
        i.sub1{background:var(--sub1)}i.sub2{background:var(--sub2)}i.sub3{background:var(--sub3)}i.free{background:var(--free)}i.never{background:var(--never)}i.lost{background:var(--lost)}
        .scroll{overflow-x:auto}table{border-collapse:collapse;width:100%;font-size:.9rem;font-variant-numeric:tabular-nums}th,td{text-align:right;padding:3px 8px;border-bottom:1px solid var(--line)}
        tbody th{text-align:left;font-weight:400;color:var(--soft)}td{overflow-wrap:anywhere}thead th{color:var(--soft);font-weight:400}details{margin:8px 0}summary{cursor:pointer}
        .rounds td{white-space:nowrap}
        @media (max-width:600px){svg text{font-size:22px}main{padding:16px 12px}.rounds{font-size:.8rem}.rounds th,.rounds td{padding:3px 5px}}
        @media print{:root{color-scheme:light}body{font-size:11pt}tr,svg,.tiles{break-inside:avoid}table{font-size:9pt}h2,h3,summary{break-after:avoid}main{max-width:none;padding:0}*{-webkit-print-color-adjust:exact;print-color-adjust:exact}}
        """;
}
