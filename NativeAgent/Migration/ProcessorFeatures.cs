using System.Globalization;
using System.Text.Json.Nodes;
using FCtrans.Agent.Hypervisor;
using FCtrans.Contracts;

namespace FCtrans.Agent.Migration;

/// <summary>
/// The features that a VM's processor was to have and that QEMU left out, since host or accelerator lack them: but for <c>enforce=on</c> it
/// only writes a warning and goes on. A guest that has found a feature at its start goes on using it, so where one is left out that was not
/// at the source, the guest would die of it after the switch-over.
/// </summary>
internal static class ProcessorFeatures
{
    /// <summary>The property of QEMU's x86 processors, X86CPUFeatureWordInfo in qapi/machine-target.json.</summary>
    private const string Property = "filtered-features";

    /// <summary>As they are named in QEMU's warnings: <c>CPUID.07H:EBX [bit 16]</c>.</summary>
    /// <exception cref="MonitorException">QEMU does not answer, or its processors have no such property.</exception>
    public static IReadOnlyList<string> Filtered(QemuMonitor monitor) =>
        monitor.QueryCpus() is [{ Path: { Length: > 0 } path }, ..] ? Parse(monitor.QomGet(path, Property)) : [];

    /// <summary>For a VM that has just been started to be migrated to.</summary>
    /// <exception cref="MigrationException">Its processor lacks what the source's has.</exception>
    public static void Require(WorkerSpec spec, QemuMonitor monitor)
    {
        if (!spec.ProcessorKnown)
        {
            return;
        }

        string[] missing = [.. Filtered(monitor).Except(spec.FilteredProcessorFeatures)];
        if (missing.Length > 0)
        {
            throw new MigrationException(
                $"QEMU can't give the VM's processor here what it has at the source: {string.Join(", ", missing)}. QEMU's log on this host names them. "
                + "Use a main host with the same processor, or start the VM with a processor model that both hosts have.");
        }
    }

    internal static IReadOnlyList<string> Parse(JsonNode words)
    {
        var names = new List<string>();
        foreach (var word in (words as JsonArray ?? []).OfType<JsonObject>())
        {
            uint leaf = (uint)Number(word["cpuid-input-eax"]);
            string index = word["cpuid-input-ecx"] is { } ecx ? string.Create(CultureInfo.InvariantCulture, $".{Number(ecx):X2}H") : "";
            long bits = Number(word["features"]);
            for (int bit = 0; bit < 64; bit++)
            {
                if ((bits >> bit & 1) != 0)
                {
                    names.Add(string.Create(CultureInfo.InvariantCulture, $"CPUID.{leaf:X2}H{index}:{word["cpuid-register"]} [bit {bit}]"));
                }
            }
        }

        return names;
    }

    private static long Number(JsonNode? node) => node is JsonValue value && value.TryGetValue(out long number) ? number : 0;
}
