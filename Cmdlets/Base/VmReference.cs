using FCtrans.Client;
using FCtrans.Contracts;

namespace FCtrans.Commands;

/// <summary>A VM as a parameter takes it: the object from Get-KvmVm, or the name of a VM on one of the connected hosts.</summary>
public sealed class VmReference
{
    private readonly KvmVm? _vm;
    private readonly string _name;

    /// <summary>A VM by its object.</summary>
    public VmReference(KvmVm vm)
    {
        _vm = vm;
        _name = vm.Name;
    }

    /// <summary>A VM by its name; looked up on all connected hosts when it is used.</summary>
    public VmReference(string name) => _name = name;

    /// <inheritdoc/>
    public override string ToString() => _name;

    /// <summary>The VM's object.</summary>
    /// <exception cref="FCtransException">VmNotFound, VmAmbiguous, HostNotConnected.</exception>
    internal async Task<KvmVm> ResolveAsync(CancellationToken cancellation)
    {
        if (_vm is not null)
        {
            return _vm.KvmHost.IsDisconnected ? throw Failure.HostNotConnected(_vm.KvmHost.Name) : _vm;
        }

        KvmVm[] found = await HostRegistry.SearchAsync(
            h => h.ListVmsAsync(cancellation),
            all => all.SelectMany(p => p.Answer.Where(v => v.Name == _name).Select(v => new KvmVm(p.Host, v)))).ConfigureAwait(false);

        // While a VM is moved, its main host has a QEMU of the same name that waits for it: one VM all the same.
        if (found.Length > 1 && found[0].SplitId.Length > 0 && found.All(v => v.SplitId == found[0].SplitId))
        {
            return found.FirstOrDefault(v => v.State == "running") ?? found[0];
        }

        return found.Length switch
        {
            1 => found[0],
            0 => throw Failure.VmNotFound(_name, "any connected host"),
            _ => throw Failure.VmAmbiguous(_name, string.Join(", ", found.Select(v => v.HostName))),
        };
    }
}
